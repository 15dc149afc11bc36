"""Where the metrics of a run go: files of its folder, TensorBoard, and services."""
