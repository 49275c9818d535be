"""Tables and figures of papers, each measured on a bank by one module: `python -m papers.dtrak.table_2
--bank digits`."""
