"""One command on many processes: starting them, what each of them is, and what they tell each other."""
