"""The Python side of the conformance contract, a module for each topic of its methods."""
