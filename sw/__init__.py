"""What runs on a host: models, quantization, the compiler, transports and the command line."""
