"""The execution of claimed jobs, step 4 of 5: workers, attempts, and the slots that run them."""
