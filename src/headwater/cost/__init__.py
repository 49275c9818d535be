"""What a bank, an attribution or a method will cost, before it runs."""
