"""The web page: chat, drawing, editing and comparison in a browser."""
