using System.Diagnostics;

namespace Sidecar.Lab;

/// <summary>Waiting for what is to come, and watching that something does not come.</summary>
internal static class Wait
{
    /// <summary>Waits until a condition holds.</summary>
    /// <param name="state">What the one who reads of the failure wants to know.</param>
    /// <exception cref="TimeoutException">It does not within the time.</exception>
    public static async Task UntilAsync(string what, Func<Task<bool>> condition, TimeSpan timeout, Func<string>? state = null)
    {
        var waited = Stopwatch.StartNew();
        while (!await condition())
        {
            if (waited.Elapsed > Patience.For(timeout))
            {
                throw new TimeoutException($"not within {timeout.TotalSeconds} s: {what}\n{state?.Invoke()}".TrimEnd());
            }

            await Task.Delay(100);
        }
    }

    /// <inheritdoc cref="UntilAsync(string, Func{Task{bool}}, TimeSpan, Func{string})"/>
    public static Task UntilAsync(string what, Func<bool> condition, TimeSpan timeout) => UntilAsync(what, () => Task.FromResult(condition()), timeout);

    /// <summary>Waits until a web server on a host's loopback address answers well.</summary>
    public static async Task UntilServedAsync(NetworkNamespace host, int port, TimeSpan timeout)
    {
        using var client = host.HttpClient();
        await UntilAsync($"port {port} answers", async () =>
        {
            try
            {
                using var answer = await client.GetAsync(new Uri($"http://127.0.0.1:{port}/"));
                return answer.IsSuccessStatusCode;
            }
            catch (HttpRequestException)
            {
                return false;
            }
        }, timeout);
    }

    /// <summary>Checks something once a second for a time in which it must stay so.</summary>
    public static async Task ThroughoutAsync(TimeSpan time, Func<Task> check)
    {
        var watched = Stopwatch.StartNew();
        while (watched.Elapsed < time)
        {
            await check();
            await Task.Delay(TimeSpan.FromSeconds(1));
        }

        await check();
    }

    /// <inheritdoc cref="ThroughoutAsync(TimeSpan, Func{Task})"/>
    public static Task ThroughoutAsync(TimeSpan time, Action check) => ThroughoutAsync(time, () =>
    {
        check();
        return Task.CompletedTask;
    });

    public static TimeSpan Seconds(double seconds) => TimeSpan.FromSeconds(seconds);
}
