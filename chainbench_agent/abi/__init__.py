"""What the C side and the Python side agree on: slots of histograms, members of structs, bytes of names."""
