"""What came out: the store, records, tables, queries. No torch, no ray."""
