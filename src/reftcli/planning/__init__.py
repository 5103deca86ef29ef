"""What a run needs before it is started: memory per GPU, tokens, FLOPs, time and cost. Arithmetic; loads no torch."""
