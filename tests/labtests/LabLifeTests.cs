namespace Sidecar.LabTests;

/// <summary>Labs come and go without leaving anything behind.</summary>
public sealed class LabLifeTests
{
    [Fact]
    public async Task Labs_stand_side_by_side_and_leave_nothing_behind()
    {
        var labs = await Task.WhenAll(TestLab.StartAsync(), TestLab.StartAsync());
        await Task.WhenAll(labs.Select(l => l.Web.WarmUpAsync()));
        (labs[0].Id == labs[1].Id).ShouldBeFalse();
        labs[0].Database.EndPoint.ShouldNotBe(labs[1].Database.EndPoint);
        var pids = labs.SelectMany(l => l.Web.Workers().Select(w => w.Pid).Append(l.Database.Server.Pid)).ToList();

        foreach (var lab in labs)
        {
            await lab.DisposeAsync();
            Leftovers(lab.Id, lab.Directory).ShouldBeEmpty();
        }

        pids.Where(pid => WorkerProcess.TryFind(pid) is not null).ShouldBeEmpty();
    }

    [Theory]
    [InlineData(Signal.Interrupt)]
    [InlineData(Signal.Terminate)]
    public async Task Ctrl_C_and_SIGTERM_remove_the_lab(Signal signal)
    {
        using var owner = StartByHand();
        var (id, directory) = await AnnouncementAsync(owner);
        Leftovers(id, directory).ShouldNotBeEmpty();

        owner.Send(signal);

        await owner.WaitForExitAsync(Wait.Seconds(20));
        Leftovers(id, directory).ShouldBeEmpty();
    }

    [Fact]
    public async Task What_a_killed_owner_left_is_removed_by_the_next_lab()
    {
        using var owner = StartByHand();
        var (id, directory) = await AnnouncementAsync(owner);
        owner.Send(Signal.Kill);
        await owner.WaitForExitAsync(Wait.Seconds(20));
        Leftovers(id, directory).ShouldNotBeEmpty();

        await using var next = await TestLab.StartAsync(new LabOptions { Servers = false });

        // The number may be in use again, by the next lab or another one; the directory has a name of its own.
        Directory.Exists(directory).ShouldBeFalse();
    }

    [Fact]
    public async Task Without_root_the_lab_fails_with_one_clear_line()
    {
        // A user namespace without a mapping: root no longer, but still able to read this tree.
        var result = await Command.TryRunAsync("unshare", ["--user", "--", LabProgram, "up"]);

        result.ExitCode.ShouldBe(1);
        result.Error.Trim().ShouldBe("sidecar-lab: the lab needs root for its network namespaces: run it as root or with sudo");
    }

    private static string LabProgram => Path.Combine(AppContext.BaseDirectory, "sidecar-lab");

    private static ChildProcess StartByHand() => ChildProcess.Start(new ChildOptions
    {
        Name = "sidecar-lab up",
        CommandLine = [LabProgram, "up"],
        Directory = AppContext.BaseDirectory,
    });

    private static async Task<(string Id, string Directory)> AnnouncementAsync(ChildProcess owner)
    {
        var first = await owner.WaitForLineAsync(l => l.StartsWith("lab "), Wait.Seconds(60));
        var files = await owner.WaitForLineAsync(l => l.StartsWith("  files "), Wait.Seconds(60));
        return (first.Split(' ')[1], files.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1]);
    }

    private static List<string> Leftovers(string id, string directory) =>
    [
        .. Directory.GetFiles("/run/netns", $"sidecar-{id}-*"),
        .. Directory.Exists(directory) ? [directory] : Array.Empty<string>(),
    ];
}
