"""Long runs whose results are committed under book/data/."""
