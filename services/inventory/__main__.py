"""`python -m services.inventory`"""

from chassis.run import main
from services.inventory.handlers import build
from services.inventory.settings import InventorySettings

if __name__ == "__main__":
    main("inventory", InventorySettings, build)
