"""`python -m services.metrics`"""

from chassis.run import main
from services.metrics.handlers import build
from services.metrics.settings import MetricsSettings

if __name__ == "__main__":
    main("metrics", MetricsSettings, build)
