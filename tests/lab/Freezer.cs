namespace Sidecar.Lab;

/// <summary>A process in a frozen cgroup: it runs no instruction and takes no signal until it is thawed. Version 1 or 2.</summary>
public sealed class Freezer : IDisposable
{
    private readonly string _group;
    private readonly string _root;
    private readonly bool _isVersion2;

    private Freezer(string root, string group, bool isVersion2)
    {
        _root = root;
        _group = group;
        _isVersion2 = isVersion2;
    }

    /// <summary>Freezes a process.</summary>
    /// <exception cref="IOException">No hierarchy of cgroups can be written.</exception>
    public static Freezer Freeze(int pid)
    {
        const string version1 = "/sys/fs/cgroup/freezer";
        var isVersion2 = !Directory.Exists(version1);
        var root = isVersion2 ? "/sys/fs/cgroup" : version1;
        var group = Path.Combine(root, $"sidecar-lab-{pid}");
        Directory.CreateDirectory(group);
        var freezer = new Freezer(root, group, isVersion2);
        File.WriteAllText(Path.Combine(group, "cgroup.procs"), $"{pid}");
        freezer.Set(true);
        return freezer;
    }

    /// <summary>Lets it run again and removes the cgroup. A second call does nothing.</summary>
    public void Dispose()
    {
        if (!Directory.Exists(_group))
        {
            return;
        }

        Set(false);
        foreach (var pid in File.ReadAllLines(Path.Combine(_group, "cgroup.procs")))
        {
            File.WriteAllText(Path.Combine(_root, "cgroup.procs"), pid);
        }

        Directory.Delete(_group);
    }

    private void Set(bool frozen) => File.WriteAllText(
        Path.Combine(_group, _isVersion2 ? "cgroup.freeze" : "freezer.state"), _isVersion2 ? frozen ? "1" : "0" : frozen ? "FROZEN" : "THAWED");
}
