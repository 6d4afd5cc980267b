"""Dense stereo: settings, plane sweep with fusion, and the matching on each device (`cpu`)."""
