"""How long the admin's pages take, and how much of the table they look at."""
