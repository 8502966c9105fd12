"""`python run.py ...` is the same as `ml ...`, in a checkout that is not installed."""

from antelope.launcher.ml import main

if __name__ == "__main__":
    main()
