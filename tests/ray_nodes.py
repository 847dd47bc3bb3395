"""A Ray cluster of so many nodes of one processor each, all on this machine, in its own process.

`python ray_nodes.py NUMBER` prints the address; a line on standard input kills a node that is not
the head, and the end of the input ends all.
"""

import sys

from ray.cluster_utils import Cluster

SIZE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={**SIZE, "include_dashboard": False})
    nodes = [cluster.add_node(**SIZE) for _ in range(int(sys.argv[1]) - 1)]
    cluster.wait_for_nodes()
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        sys.stdout.write("killed\n")
        sys.stdout.flush()
    cluster.shutdown()
