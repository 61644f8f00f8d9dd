from common import fails, os, sys

param = os.sched_param(0)
print(os.sched_getscheduler(0), os.sched_getparam(0), fails(os.sched_getscheduler, -1), fails(os.sched_getparam, -1))
print(fails(os.sched_getparam, 1) == param)
for policy in (os.SCHED_BATCH, os.SCHED_OTHER, 4, 6, 100, -1, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK):
    print(policy, fails(os.sched_setscheduler, 0, policy, param), os.sched_getscheduler(0))
for policy, priority in ((os.SCHED_OTHER, 1), (os.SCHED_FIFO, 0), (os.SCHED_RR, 100), (os.SCHED_BATCH, 5)):
    print(policy, fails(os.sched_setscheduler, 0, policy, os.sched_param(priority)))
print(fails(os.sched_setparam, 0, param), fails(os.sched_setparam, 0, os.sched_param(1)))
print(fails(os.sched_setparam, -1, param))
print(os.sched_rr_get_interval(0) >= 0, fails(os.sched_rr_get_interval, -1), fails(os.sched_rr_get_interval, 999999))
print(fails(os.sched_getaffinity, -1), fails(os.sched_setaffinity, -1, [0]), fails(os.sched_getaffinity, 999999))
print([(os.sched_get_priority_min(policy), os.sched_get_priority_max(policy)) for policy in (0, 1, 2, 3, 5)])
print(fails(os.sched_get_priority_max, 4), fails(os.sched_get_priority_min, -1))
sys.stdout.flush()
pid = os.fork()
if not pid:
    print(os.sched_getscheduler(0), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
