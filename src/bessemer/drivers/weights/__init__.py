"""What weights say of themselves: headers of GGUF and safetensors, and the texts beside them, as hostile bytes."""
