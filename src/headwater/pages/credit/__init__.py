"""Credit by group: the section of a page, the table, the files."""
