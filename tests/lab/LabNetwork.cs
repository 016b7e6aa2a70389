using System.Net;

namespace Sidecar.Lab;

/// <summary>
/// The hosts of a lab and the links between them:
/// <c>[container] – worker – router – database</c>, each a network namespace, IPv4 and IPv6 on every link.
/// </summary>
public sealed class LabNetwork
{
    private readonly string _subnet4;
    private readonly string _subnet6;
    private readonly bool _hasContainer;

    private LabNetwork(string id, int number, bool container)
    {
        _hasContainer = container;
        _subnet4 = $"10.77.{number}";
        _subnet6 = $"fd77:{number:x}";
        var names = NamespaceNames(id);
        Worker = new NetworkNamespace(names[0]);
        Router = new NetworkNamespace(names[1]);
        Database = new NetworkNamespace(names[2]);
        Application = container ? new NetworkNamespace(names[3]) : Worker;
    }

    /// <summary>The worker host: here the agent runs.</summary>
    public NetworkNamespace Worker { get; }

    public NetworkNamespace Router { get; }

    public NetworkNamespace Database { get; }

    /// <summary>Where the workers stand: the worker host, or a namespace of their own behind it.</summary>
    public NetworkNamespace Application { get; }

    public IPAddress DatabaseAddress4 => IPAddress.Parse($"{_subnet4}.66");

    public IPAddress DatabaseAddress6 => IPAddress.Parse($"{_subnet6}:2::2");

    /// <summary>The IPv4 network of all hosts of this lab, in CIDR notation.</summary>
    public string Network4 => $"{_subnet4}.0/24";

    /// <summary>The IPv6 network of all hosts of this lab, in CIDR notation.</summary>
    public string Network6 => $"{_subnet6}::/32";

    /// <summary>The names that the namespaces of a lab have, whether they exist or not.</summary>
    internal static IReadOnlyList<string> NamespaceNames(string id) =>
        [$"sidecar-{id}-worker", $"sidecar-{id}-router", $"sidecar-{id}-database", $"sidecar-{id}-container"];

    internal static async Task<LabNetwork> CreateAsync(LabSlot slot, bool container)
    {
        var network = new LabNetwork(slot.Id, slot.Number, container);
        await network.CreateAsync();
        return network;
    }

    /// <summary>Takes a link of the router down, or up again. It stays down on both families.</summary>
    public async Task SetLinkAsync(LabLink link, bool up)
    {
        var device = link == LabLink.Worker ? "to-worker" : "to-database";
        await Router.IpAsync($"link set {device} {(up ? "up" : "down")}");
        if (up && link == LabLink.Worker)
        {
            await AddContainerRoutesAsync();
        }
    }

    private async Task CreateAsync()
    {
        var hosts = new List<NetworkNamespace> { Worker, Router, Database };
        if (_hasContainer)
        {
            hosts.Add(Application);
        }

        foreach (var host in hosts)
        {
            await Command.RunAsync("ip", ["netns", "add", host.Name]);
            // No duplicate-address detection (it takes seconds); addresses survive a link that goes down.
            await host.SysctlAsync(
                "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0",
                "net.ipv6.conf.default.keep_addr_on_down=1", "net.ipv6.conf.all.keep_addr_on_down=1");
        }

        foreach (var forwarder in _hasContainer ? new[] { Router, Worker } : [Router])
        {
            await forwarder.SysctlAsync("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1");
        }

        await Router.IpAsync(
            $"link add to-worker type veth peer name to-router netns {Worker.Name}",
            $"link add to-database type veth peer name to-router netns {Database.Name}",
            $"addr add {_subnet4}.2/26 dev to-worker",
            $"addr add {_subnet6}:1::2/64 dev to-worker nodad",
            $"addr add {_subnet4}.65/26 dev to-database",
            $"addr add {_subnet6}:2::1/64 dev to-database nodad",
            "link set lo up",
            "link set to-worker up",
            "link set to-database up");
        await Worker.IpAsync(
            $"addr add {_subnet4}.1/26 dev to-router",
            $"addr add {_subnet6}:1::1/64 dev to-router nodad",
            "link set lo up",
            "link set to-router up",
            $"route add default via {_subnet4}.2",
            $"route add default via {_subnet6}:1::2");
        await Database.IpAsync(
            $"addr add {_subnet4}.66/26 dev to-router",
            $"addr add {_subnet6}:2::2/64 dev to-router nodad",
            "link set lo up",
            "link set to-router up",
            $"route add default via {_subnet4}.65",
            $"route add default via {_subnet6}:2::1");
        if (!_hasContainer)
        {
            return;
        }

        await Worker.IpAsync(
            $"link add to-container type veth peer name eth0 netns {Application.Name}",
            $"addr add {_subnet4}.129/26 dev to-container",
            $"addr add {_subnet6}:3::1/64 dev to-container nodad",
            "link set to-container up");
        await Application.IpAsync(
            $"addr add {_subnet4}.130/26 dev eth0",
            $"addr add {_subnet6}:3::2/64 dev eth0 nodad",
            "link set lo up",
            "link set eth0 up",
            $"route add default via {_subnet4}.129",
            $"route add default via {_subnet6}:3::1");
        await AddContainerRoutesAsync();
    }

    private Task AddContainerRoutesAsync() => _hasContainer
        ? Router.IpAsync($"route replace {_subnet4}.128/26 via {_subnet4}.1", $"route replace {_subnet6}:3::/64 via {_subnet6}:1::1")
        : Task.CompletedTask;
}
