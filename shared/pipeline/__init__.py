"""The worker loop and what a stage of the pipeline is."""
