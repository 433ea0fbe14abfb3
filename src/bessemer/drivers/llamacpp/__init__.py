"""llama.cpp's server as a confined process behind a unix socket."""
