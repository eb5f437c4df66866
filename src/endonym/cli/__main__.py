"""python -m endonym.cli"""

from endonym.cli import main

main()
