"""Load on an engine of this host: requests at times that were chosen before, and when each piece of an answer came."""
