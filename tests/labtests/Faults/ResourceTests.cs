using System.Globalization;
using System.Net.Sockets;

namespace Sidecar.LabTests.Faults;

/// <summary>Disks, descriptors and the kernel's answers run out; protection goes on where it can and comes back where it could not.</summary>
public sealed class ResourceTests
{
    private const int ENOBUFS = 105;

    [Fact]
    public async Task On_a_full_disk_and_on_a_read_only_one_it_goes_on_and_writes_down_later_what_it_did()
    {
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        await lab.Web.WarmUpAsync();
        var agent = await lab.StartAgentAsync(FaultSteps.RecycleOnly with
        {
            Starter = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=64k none \"$0\" && exec \"$@\"", "{state}"],
        });

        // Its own mounts are seen through its own root.
        var state = $"/proc/{agent.Pid}/root{agent.StateDirectory}";
        var filler = Path.Combine(state, "filler");
        Should.Throw<IOException>(() => File.WriteAllBytes(filler, new byte[1024 * 1024]));
        await agent.FreesAsync(await lab.AskOnForgottenAsync());
        await LimitationAsync(agent, "incidents cannot be stored");
        Records(state).ShouldBe(0);

        File.Delete(filler);
        await Wait.UntilAsync("what waited is written", () => Records(state) == 1, Wait.Seconds(20));

        await lab.Web.WarmUpAsync();
        await MountAsync(agent, "mount", "-t", "tmpfs", "-o", "ro", "none");
        await agent.FreesAsync(await lab.AskOnForgottenAsync());
        await LimitationAsync(agent, "incidents cannot be stored");
        Records(state).ShouldBe(0);

        await MountAsync(agent, "umount");
        await Wait.UntilAsync("what waited is written", () => Records(state) == 2, Wait.Seconds(20));
        agent.Process.HasExited.ShouldBeFalse();
    }

    [Fact]
    public async Task Without_descriptors_it_acts_on_nothing_spins_on_nothing_and_recovers()
    {
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        await lab.Web.WarmUpAsync();
        // Other labs come and go beside this one, and their namespaces would be counted too.
        var agent = await lab.StartAgentAsync(FaultSteps.RecycleOnly with { NetworkNamespaces = "own" });
        await agent.SeesAsync(lab.Web.Workers()[0].Pid);
        var before = Descriptors(agent.Pid);

        await LimitAsync(agent.Pid, 0);
        var request = await lab.AskOnForgottenAsync();

        // Somebody who wants metrics and somebody who wants the status wait all the while in the queues of its listeners.
        using var scraper = lab.Network.Worker.Inside(() => new TcpClient("127.0.0.1", AgentProcess.Port));
        var used = FaultSteps.CpuOf(agent.Pid);
        await agent.StaysHungAsync(request, Wait.Seconds(6));
        (FaultSteps.CpuOf(agent.Pid) - used).ShouldBeLessThan(Wait.Seconds(4), "it spins");

        await LimitAsync(agent.Pid, 1024);
        await agent.FreesAsync(request);
        await Wait.UntilAsync("metrics are served again", async () =>
        {
            using var patience = new CancellationTokenSource(Wait.Seconds(5));
            return (await agent.MetricsAsync().WaitAsync(patience.Token).ContinueWith(page => page.IsCompletedSuccessfully, TaskScheduler.Default)) is true;
        }, Wait.Seconds(20));
        scraper.Dispose();
        await Wait.UntilAsync("no descriptor is lost", () => Descriptors(agent.Pid) <= before + 8, Wait.Seconds(30));
    }

    [Theory]
    [InlineData("netlink/18")] // the questions are refused
    [InlineData("answer/32")] // the answers are lost, and older ones stay in the queue
    public async Task While_the_kernel_does_not_answer_nothing_is_taken_for_gone_and_nothing_is_done(string call)
    {
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        var worker = (await lab.Web.WarmUpAsync())[0];
        var armed = Path.Combine(lab.Directory, "armed");
        var agent = await lab.StartAgentAsync(FaultSteps.RecycleOnly with { Starter = await Interruption.StarterAsync(armed, $"{call}/errno={ENOBUFS}") });
        await agent.SeesAsync(worker);

        await File.WriteAllTextAsync(armed, "");
        await agent.Process.WaitForLineAsync(line => line.StartsWith($"interrupt: {call}", StringComparison.Ordinal), Wait.Seconds(20));
        var request = await lab.AskOnForgottenAsync();
        await agent.StaysHungAsync(request, Wait.Seconds(4));
        (await agent.StatusAsync()).ShouldHaveSingleItem().Pid.ShouldBe(worker);
        (await agent.IncidentsAsync()).ShouldBeEmpty();

        File.Delete(armed);
        await agent.FreesAsync(request);
        (await agent.IncidentsAsync()).ShouldContain(i => i.Remedy == "recycle" && i.Outcome == "released");
    }

    private static int Descriptors(int pid) => Directory.GetFileSystemEntries($"/proc/{pid}/fd").Length;

    private static int Records(string state) =>
        File.Exists(Path.Combine(state, "incidents.jsonl")) ? File.ReadLines(Path.Combine(state, "incidents.jsonl")).Count(line => line.Contains("\"outcome\":\"released\"")) : 0;

    /// <summary>Changes what the agent finds at its state directory.</summary>
    private static Task<string> MountAsync(AgentProcess agent, params string[] command) =>
        Command.RunAsync("nsenter", [$"--mount=/proc/{agent.Pid}/ns/mnt", .. command, agent.StateDirectory]);

    private static Task<string> LimitAsync(int pid, int descriptors) =>
        Command.RunAsync("prlimit", ["--pid", pid.ToString(CultureInfo.InvariantCulture), $"--nofile={descriptors}:"]);

    private static Task LimitationAsync(AgentProcess agent, string text) => Wait.UntilAsync(
        $"it says that {text}", async () => (await agent.RunAsync("status", "--json")).Output.Contains(text), Wait.Seconds(10));
}
