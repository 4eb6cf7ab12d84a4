"""What stands between the native engine and OpenSSL, with stubs for builds without it."""
