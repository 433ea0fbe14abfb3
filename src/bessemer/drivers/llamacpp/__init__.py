"""llama.cpp's server, as a sort of engine."""
