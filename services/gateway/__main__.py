"""Start the gateway: `python -m services.gateway`."""

from chassis.run import main
from services.gateway.build import build
from services.gateway.settings import GatewaySettings

if __name__ == "__main__":
    main("gateway", GatewaySettings, build)
