"""Look at data as the model sees it: samples, packs and numbers over a plan."""
