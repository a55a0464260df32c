"""Engines, connections and transactions: the application's and riverrun's own."""
