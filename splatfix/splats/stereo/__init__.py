"""Dense points from the chosen photos alone: plane-sweep stereo, and where it runs."""
