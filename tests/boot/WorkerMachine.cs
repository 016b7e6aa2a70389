namespace Sidecar.BootTests;

/// <summary>The worker host of a lab: a booted Debian with the application as <c>uwsgi.service</c>, and no agent yet.</summary>
internal sealed class WorkerMachine : IAsyncDisposable
{
    private WorkerMachine(TestLab lab) => Lab = lab;

    public TestLab Lab { get; }

    public Machine Machine { get; private set; } = null!;

    public WebService Web { get; private set; } = null!;

    /// <summary>Boots it; the lab has no workers of its own.</summary>
    /// <exception cref="TimeoutException">The machine did not come up.</exception>
    public static async Task<WorkerMachine> StartAsync(LabOptions? options = null)
    {
        var host = new WorkerMachine(await TestLab.StartAsync((options ?? new LabOptions()) with { Workers = 0 }));
        try
        {
            host.Machine = await Machine.BootAsync(host.Lab.Network.Worker);
            host.Web = await WebService.StartAsync(host.Machine, host.Lab);
            return host;
        }
        catch
        {
            await host.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        Web?.Dispose();
        if (Machine is not null)
        {
            await Machine.DisposeAsync();
        }

        await Lab.DisposeAsync();
    }
}
