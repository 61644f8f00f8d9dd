"""Starting a kernel guest: where everything lies, what is loaded there, and the state the processor begins in."""
