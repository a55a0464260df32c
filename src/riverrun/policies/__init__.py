"""What users may replace: when a failed job returns, and what counts as the same job."""
