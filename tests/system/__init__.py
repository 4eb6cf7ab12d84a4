"""The whole product from outside: real proxy processes, real TCP clients, real backends."""
