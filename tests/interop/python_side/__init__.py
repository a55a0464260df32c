"""The Python side of the conformance contract: one module for each topic of its methods."""
