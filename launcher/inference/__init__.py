"""A trained model in use: loaded, acting, played."""
