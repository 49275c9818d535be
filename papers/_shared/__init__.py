"""What all tables and figures share.

line → what is measured · exhibit → the module of a table or figure · session → one call's bank and store
bench → lines measured · keeping → rows on disk · pages, drawing → Markdown, SVG · command → the command line
"""
