"""NAFNet restorers: architecture, network, checkpoint, model card and the shipped weights."""
