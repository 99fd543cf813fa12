"""Commands of the door: nginx's configuration, and the routes that it decides about."""
