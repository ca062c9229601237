"""Start the scheduler: `python -m services.scheduler`."""

from chassis.run import main
from services.scheduler.handlers import build
from services.scheduler.settings import SchedulerSettings

if __name__ == "__main__":
    main("scheduler", SchedulerSettings, build)
