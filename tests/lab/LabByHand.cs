namespace Sidecar.Lab;

/// <summary>The lab for people: it stands until Ctrl-C.</summary>
internal static class LabByHand
{
    public static async Task<int> RunAsync()
    {
        await using var lab = await TestLab.StartAsync();
        var pids = await lab.Web.WarmUpAsync();
        Console.WriteLine($"""
            lab {lab.Id} stands: all {pids.Count} workers have a connection, the router forgets after {lab.Options.IdleTimeout.TotalSeconds} s

              worker host    ip netns exec {lab.Network.Worker.Name} ss -tnoi
              router         ip netns exec {lab.Network.Router.Name} conntrack -L
              database       {lab.Database.EndPoint} in {lab.Network.Database.Name}
              ask worker 4   curl --unix-socket {lab.Directory}/web/worker-4.sock http://worker/query
              files          {lab.Directory}

            Ctrl-C takes it down.
            """);
        await Task.Delay(Timeout.Infinite);
        return 0;
    }

    public static int Reap()
    {
        foreach (var id in TestLab.Reap())
        {
            Console.WriteLine($"removed what lab {id} had left");
        }

        return 0;
    }

    public static int Usage()
    {
        Console.Error.WriteLine("""
            usage: sidecar-lab demo    the blackout, without and with the agent, side by side
                   sidecar-lab soak MINUTES [SEED]    everything at once, and a report
                   sidecar-lab up      one lab to play with, until Ctrl-C
                   sidecar-lab reap    remove what labs of dead processes left behind
            """);
        return 2;
    }
}
