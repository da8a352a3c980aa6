"""The suite against its peers, on the same work, in one run: see RESULTS.md."""
