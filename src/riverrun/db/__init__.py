"""The database: engines, connections and transactions, the host's and our own."""
