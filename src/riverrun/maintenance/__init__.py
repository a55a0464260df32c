"""Services that maintain the tables while clients run. Only the leader runs most of them."""
