"""python -m endonym.cli"""

from endonym.cli import main

if __name__ == "__main__":
    main()
