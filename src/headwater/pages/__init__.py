"""Run folders to pages, tables and files. No torch."""
