"""Answer over HTTP: one worker around an engine, a controller in front of several."""
