"""What every engine must do, shown with real sockets; one suite for all of them."""
